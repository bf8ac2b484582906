"""How this machine becomes a Node and stays one: its grants, its certificates, its Node object, its Lease."""
