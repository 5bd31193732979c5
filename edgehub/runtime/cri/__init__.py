"""containerd and CRI-O, over gRPC on their unix socket. Importing `edgehub.runtime.cri.runtime` loads gRPC."""
