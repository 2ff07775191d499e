# A rule for every step: they differ in nothing that isn't in steps/plan/specs/. Runs own the machine
# (threads: all of it), and nothing is retried: a second try would hide an unstable system. One
# exception (steps/commands/measuring.py): a run that is shorter than the rules' and INVALID in a
# disturbed window is set aside and measured once more, and both are counted. With a scheduler, local
# rules stay on the machine that ./reproduce runs on.
for step, spec in registry.STEPS.items():

    rule:
        name:
            step
        input:
            needs(step),
        output:
            manifest=manifest(step),
        log:
            logfile(step),
        priority: spec.priority
        localrule: spec.place == "here"
        threads: WHOLE_MACHINE if spec.environment == "engine" else 1
        resources:
            **resources(step),
        params:
            **arguments(step),
        message:
            announcement(step)
        shell:
            RUN
