"""Node tasks on the node: what was asked, the checks, the pulls, the reports, and the journal of it all.

Nothing here knows of sockets: a task comes in by `service.TaskService.received`, a report goes out by a `Channel`.
"""
