"""The driver: decides what runs, where and for how long, and tells the user. Never imports torch."""
