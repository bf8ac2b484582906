"""All pods of this node: which are taken, what was left of them, in which order their containers run and end."""
