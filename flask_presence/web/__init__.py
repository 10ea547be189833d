"""What the blueprint serves: the WebSocket upgrade, the browser client, the stats pages and their JSON."""
