"""Accepting connections from the open network, with bounds on peers that have not yet proved who they are.

Used by the servers that face nodes, sessions (`cloudhub.sessions`) and joining (`cloudhub.pki.join`), and by those that
face operators: the embedded API (`cloudhub.standalone`), health and metrics (`cloudhub.health`).
"""
