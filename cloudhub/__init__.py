"""The service in the cloud: sessions to edge nodes, the taskManager, and what they need."""
