"""Shipped to users: clock, runners, guest driver, front end, initiator, oracle, conformance kit."""
