"""Reports of audits with invented numbers."""


def made_up_report(file, status="certified", modes=("personalized", "anonymous")):
    """An audit's structure with invented numbers: what the command does with one."""

    def end(labels):
        return {
            "status": status,
            "start": "random 1",
            "user_values": dict.fromkeys(file.users, -123.456789),
            "provider_payoffs": dict.fromkeys(file.providers, 0.5),
            "exploitability": {"lower": 0.0, "upper": 1e-9 if status == "certified" else 0.25},
            "policies": {
                i: {label: [[1.0]] * len(file.states) for label in labels} for i in file.providers
            },
            "choices": {
                u: {"provider": file.providers[0], "actions": [file.actions[0]]} for u in file.users
            },
        }

    def mode(name):
        labels = file.users if name == "personalized" else ("everyone",)
        found = {
            "worst_case_loss": {"total": 2.0, "per_user": dict.fromkeys(file.users, 1.0)},
            "babbling_is_equilibrium": None,
            "babbling_gain": dict.fromkeys(file.providers, 0.0),
            "best": end(labels),
            "worst": end(labels),
            "certified": 1,
            "searched": 2,
        }
        if name == "personalized":
            ranges = {user: [0.5, 1.0] for user in file.users}
            sure = dict.fromkeys(file.users, True)
            lower = {user: [0.25, 1.0] for user in file.users}
            found |= {
                "equilibrium_range": ranges,
                "equilibrium_range_certified": dict.fromkeys(file.users, False),
                "equilibrium_range_delta": {
                    "1e-09": {"range": ranges, "certified": sure},
                    "1e-06": {"range": lower, "certified": sure},
                },
            }
        return found

    kinds = [
        f"{shape}_{offset}"
        for shape in ("hull", "cone")
        for offset in ("none", "constant", "state")
    ]
    strong = {
        "distance": 0.5,
        "weights": dict.fromkeys(file.providers, 1.0),
        "scales": dict.fromkeys(file.users, 1.0),
    }
    return {
        "market": file.name,
        "settings": {"starts": 64, "seed": 0, "modes": list(modes), "tolerance": 1e-6},
        "users": {
            user: {
                "full_information": 1.0,
                "uninformed": 0.0,
                "alignment": dict.fromkeys(kinds, 0.0),
            }
            for user in file.users
        },
        "strong_alignment": {"constant": strong, "state": strong},
        **{name: mode(name) for name in modes},
    }
