"""How a federation comes about without a dealer: cards, the template that all agree on, and the genesis they make."""
