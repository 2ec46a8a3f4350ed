"""Reading one commit of a store."""
