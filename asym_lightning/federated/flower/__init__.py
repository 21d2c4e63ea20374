"""What speaks Flower's language; importing these modules needs the extra `federated`."""
