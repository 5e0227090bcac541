"""The monitor's commands on what the server has: one file per noun."""
