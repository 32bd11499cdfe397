"""A head that a user might write."""

from mmdet.models.dense_heads import RetinaHead


class MyHead(RetinaHead):
    """RetinaNet's head with an unusual name for its box output."""

    def _init_layers(self):
        super()._init_layers()
        self.my_deltas = self.retina_reg
        del self.retina_reg

    def forward_single(self, x):
        cls, reg = x, x
        for conv in self.cls_convs:
            cls = conv(cls)
        for conv in self.reg_convs:
            reg = conv(reg)
        return self.retina_cls(cls), self.my_deltas(reg)
