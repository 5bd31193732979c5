"""The heart of the hub: from jobs to node tasks, and from what nodes report to a job's status.

`cloudhub.taskmanager.manager.TaskManager` is the way in; `cloudhub.taskmanager.ports` is what it needs of the rest
of the hub. `lifecycle`, `selection`, `spec`, `status` and `dispatch` are pure.
"""
