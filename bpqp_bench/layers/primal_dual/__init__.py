"""Primal-dual active-set method for convex QPs, on one factorization for both passes.

With P = LLᵀ, C = [A; G], d = [b; h] and W = L⁻¹Cᵀ, the dual of the QP is a linear complementarity
problem in the multipliers y of the rows and their slacks s:

    s = d + Wᵀ L⁻¹q + WᵀW y,    s = 0 on equalities,    y ≥ 0, s ≥ 0, yᵀs = 0 on inequalities.

The method (Hintermüller, Ito, Kunisch, SIAM J. Optim. 13 (2002); for LCPs Kostreva's and Kunisch's
block pivoting) guesses the set of binding rows J, solves for y_J with s_J = 0, and takes out the
rows with y < 0 and puts in those with s < 0, until J stays. z = −L⁻ᵀ(L⁻¹q + Wy). The equalities are
eliminated once, so that a step costs one Cholesky factorization on the binding inequalities. Then
the point is refined on the KKT system, and the signs are decided again at that accuracy.

Nothing depends on units: Cholesky factorizations are invariant under scaling of rows and variables,
and all tolerances are relative to |Wᵢ|, |Lᵀz| and |L⁻¹q|, which scale as slacks and multipliers do.

Where P is singular, or the set changes choose more rows than are independent, the kernels on the
CPU go on with the proximal method of multipliers, on P + ρM and WᵀW + δ diag, until the binding
rows rest. Then the KKT system itself is solved on these, refined with the factor of P + ρM for a
small ρ; a point at which the objective is flat along a free direction is left to other solvers.

The backward QP (Pan et al., NeurIPS 2024, Theorem 1) is one more solve with L and the factor of
WᵀW on the binding rows.

Kernels on the CPU, by Numba: `cpu` calls them; `factors` has the factorizations, `compiled` both
passes of one instance after the other, `together` those of instances that share P, A and G,
`proximal` what singular data need, `pieces` the steps of all, `memory` and `blas` what they compute
with. On other devices `batched` does the same in torch. `rules` has the tolerances of both.
"""
