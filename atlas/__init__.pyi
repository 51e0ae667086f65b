from atlas.in_memory.explaining import explain as explain
from atlas.in_memory.scoring import score as score
from atlas.model.classifier import Classifier as Classifier
from atlas.share import open_maps as open_maps
from atlas.share import open_results as open_results
from atlas.share import open_scores as open_scores
from atlas.study.errors import Unsupported as Unsupported
from atlas.study.errors import UserError as UserError
