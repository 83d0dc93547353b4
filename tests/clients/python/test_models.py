"""The list of models, and each by its name."""


def test_every_listed_model_can_be_retrieved(client):
    models = client.models.list().data
    assert models
    for model in models:
        assert client.models.retrieve(model.id) == model
        assert model.object == "model"
