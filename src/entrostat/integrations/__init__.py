"""Host trainers, a file a host. Nothing here is imported before it is asked for."""
