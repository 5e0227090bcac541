"""The lab: guests, and what they prove. It talks to the disk server only by its command line."""
