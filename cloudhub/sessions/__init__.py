"""Sessions of nodes: KubeEdge's WebSocket over mutual TLS, one live session a node.

`cloudhub.sessions.server.SessionServer` is the shell that listens; it satisfies `cloudhub.taskmanager.ports.Sessions`
and tells a `SessionListener`. What may happen in a session is in `protocol` (no sockets, no clock), who is connected in
`registry`, who may begin a handshake in `admission`, what waits to be sent in `outbox`, what is late in `deadlines`.
"""
