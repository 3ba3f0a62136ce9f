"""What each API action does: World + call -> Change and answer, or a worded error. Pure; one module per family."""

from wicketgate.control.call import Ask, Call, Caller, Operation, Outcome, operation, operations

__all__ = ["Ask", "Call", "Caller", "Operation", "Outcome", "operation", "operations"]
