"""How an adapted layer computes."""
