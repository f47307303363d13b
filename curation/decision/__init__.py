"""What may stay: policies over evidence, certificates, and the answer to "why"."""
