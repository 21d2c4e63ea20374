"""Tables, plots and the page of a comparison, from run directories."""
