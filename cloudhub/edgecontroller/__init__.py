"""What an EdgeCore with `edged` on asks its hub for, so that its embedded kubelet works: its Node and its Lease.

`rules` says what a node may write (no I/O), `answers` how KubeEdge words questions and answers, `controller` serves
them. It is CloudCore's edgeController as far as Nodes go; pods, ConfigMaps and the rest of it are not here.
"""
