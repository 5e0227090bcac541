"""The Windows initiator as a model: what the class driver sends to a disk, and what it makes of the answers.

Facts from the class and disk drivers' published source (microsoft/Windows-driver-samples, storage/class) and from
Microsoft's documents. A model, not Windows: what it says is proven by byte vectors, never by a run on Windows.
"""
