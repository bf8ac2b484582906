"""What a container is given before it starts: its module, its volumes, what the API knows of its variables."""
