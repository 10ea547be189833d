"""The commands `flask presence …`."""
