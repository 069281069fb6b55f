"""Ray: session, nodes, hosts, shared storage, worker groups."""
