"""How many requests, and how long they take: histograms per export, queue and operation."""
