"""The hub's certificate authority: its own identity, join tokens, node certificates, and the HTTPS join endpoints.

`cloudhub.pki.setup.open_pki` is the way in: it gives the CA, its token issuer and the two TLS contexts (`node sessions`
require a client certificate, `join` asks for one). Everything that is read from peers here is checked before any
cryptography is done with it, and no key or token is ever part of an error, a log line or a repr.
"""
