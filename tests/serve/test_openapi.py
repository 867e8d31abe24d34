"""The description: true and complete; its page takes nothing from elsewhere."""

import re


def test_every_address_of_the_service_is_described_and_no_other(app, client):
    document = client.get("/api/v1/openapi.json").json
    described = {
        (path, method.upper())
        for path, methods in document["paths"].items()
        for method in methods
        if method != "parameters"
    }
    real = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("api.")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert described == real
    assert document["security"] == [{"token": []}]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_every_operation_names_its_problems(client):
    document = client.get("/api/v1/openapi.json").json
    for methods in document["paths"].values():
        for method, operation in methods.items():
            if method == "parameters":
                continue
            assert operation["summary"].endswith(".")
            assert "401" in operation["responses"]
            for status, answer in operation["responses"].items():
                if status >= "4" and status != "default":
                    assert list(answer["content"]) == ["application/problem+json"], (method, status)


def test_a_second_application_describes_the_same(client, make_app):
    document = client.get("/api/v1/openapi.json").json
    assert make_app().test_client().get("/api/v1/openapi.json").json == document


def test_the_form_is_described_by_its_new_field(client):
    document = client.get("/api/v1/openapi.json").json
    content = document["paths"]["/api/v1/predictions"]["post"]["requestBody"]["content"]
    assert list(content["multipart/form-data"]["schema"]["properties"]) == ["image"]


def test_the_page_takes_script_and_style_from_here_and_has_none_inline(client):
    answer = client.get("/api/v1/")
    assert answer.status_code == 200
    assert "Research use only" in answer.text
    assert 'data-url="/api/v1/openapi.json"' in answer.text
    assert " style=" not in answer.text
    assert re.findall(r"<script[^>]*>(.*?)</script>", answer.text, re.DOTALL) == [""] * 3
    addresses = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    for address in addresses:
        assert address.startswith(("/", "#")), address
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        (address,) = [address for address in addresses if address.endswith(name)]
        with client.get(address) as shown:
            assert shown.status_code == 200
            assert "immutable" in shown.headers["Cache-Control"]
        assert client.get(address.replace(name, "index.html")).status_code == 404
