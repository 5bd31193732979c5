"""Accepting TLS connections from the open network, with bounds on peers that have not yet proved who they are.

Used by the two servers that face nodes: sessions (`cloudhub.sessions`) and joining (`cloudhub.pki.join`).
"""
