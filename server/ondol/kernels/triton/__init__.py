"""The operators as Triton kernels; imported only where they are going to run.

Every module holds one family: thin functions that take what the torch reference takes, and the kernels that
they launch. Knows nothing about models. Invariant: batch-invariant. Block sizes depend on a model's shapes,
never on the number of rows, sums run in one fixed order, and nothing is added atomically; so a row's result
does not depend on the rows beside it.

Triton reads TRITON_INTERPRET when it is imported: with 1 the same kernels run on CPU tensors, slowly, which
is how they are tested without a GPU.
"""
