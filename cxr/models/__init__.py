"""Networks from timm with their weights, and the ensemble of them."""
