"""POP3 in three files: bytes (wire), states (session), sockets (server); and asks, which the server carries out."""
