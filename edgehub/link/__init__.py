"""The way to the hub: joining with a token, the node's certificate and its renewal, the WebSocket.

Nothing here knows of jobs or images: `connection` hands each message to a listener and sends what it is given.
"""
