"""The wire and only the wire: services that translate calls into what the daemon does, and back."""
