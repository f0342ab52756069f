"""The end-to-end portfolio experiment: predict, optimize, learn (tables 4 and 6 of the paper).

`data` is the interface to a market; `synthetic`, `control`, `prices` and `qlib_data` fill it.
`problem` is the optimization of a day, `days` what learning sees of it, `model` the predictor,
`step` one step of learning and `train` the loop; `evaluate`, `metrics` and `significance` judge;
`experiment` runs everything from one configuration. See docs/portfolio.md.
"""
