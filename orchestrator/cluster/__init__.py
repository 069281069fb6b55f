"""Ray: session, nodes, hosts, placement, worker groups."""
