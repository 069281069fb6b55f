"""Hosts of a sweep: how many there are, which trial runs on which, starting and replacing them."""
