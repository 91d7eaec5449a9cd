"""The methods of the JSON-RPC interface, by what they are about."""
