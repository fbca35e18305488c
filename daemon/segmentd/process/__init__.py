"""The process among others: what it has for itself, and what it tells the service manager."""
