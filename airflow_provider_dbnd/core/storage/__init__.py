"""The artifact store: objects on any file system, whole or in parts, and what keeps them safe."""
