"""The driver: decides what runs, where and how long, and tells the user. Never imports torch."""
