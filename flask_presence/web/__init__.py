"""The blueprint: the WebSocket upgrade, the browser client, the stats page, the JSON API, metrics and health."""
