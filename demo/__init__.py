"""The demo: generated contracts, a reviewer's client, and the loop played with both."""
