"""The machine under the node: what it has and uses, when it runs short, and what is thrown away then."""
