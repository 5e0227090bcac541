"""The server process: event loop, workers, configuration, exports."""
