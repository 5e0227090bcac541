"""What a run leaves for people and machines: one HTML page, JUnit XML and JSON (`docs/report.md`)."""
