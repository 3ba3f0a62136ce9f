"""Why can, or cannot, this connection be made? Answers from the World alone, by the code that enforces."""
