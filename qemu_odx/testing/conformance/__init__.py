"""The conformance kit: replays vector files against a target in this process."""
